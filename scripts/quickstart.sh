#!/usr/bin/env bash
# Run the README example as a real Prefect run: on a local server in the background, so that its page in the UI lives on.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=
export PATH="$PWD/.venv/bin:${PATH:-/usr/local/bin:/usr/bin:/bin}" HOME="${HOME:-$PWD/.cache/home}"
export PREFECT_SERVER_ANALYTICS_ENABLED=false

echo "quickstart: rainbow check examples/quickstart"
rainbow check examples/quickstart
if [[ -z ${PREFECT_API_URL:-} ]]; then
    echo "quickstart: rainbow server start (the first start takes up to a minute)"
    rainbow server start
fi
echo "quickstart: rainbow run examples/quickstart"
rainbow run examples/quickstart
cat <<'END'

That was examples/quickstart/rainbow.yml. The link above is this run in the Prefect UI.
Next, make a project of your own:

    source .venv/bin/activate
    rainbow init my_project && rainbow run my_project

`rainbow server stop` ends the server in the background.
END
