"""`rainbow metrics`: print the metrics of this machine's runs, or let Prometheus scrape them."""

from __future__ import annotations

import click

from ..errors import RunError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Serve them on this port until stopped; 0: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
def command(port: int | None, host: str) -> None:
    """Let Prometheus scrape the metrics of this machine's runs; without --port print them.

    They are those of pipelines with `metrics: {backends: [prometheus]}`. Run it beside the worker.
    """
    from ..observers.prometheus import all_known, exposition

    if port is None:
        click.echo(exposition(list(all_known())), nl=False)
        return
    _serve(host, port)


def _serve(host: str, port: int) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from ..observers.prometheus import all_known, exposition

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_here = self.path.partition("?")[0] in ("/metrics", "/")
            body = exposition(list(all_known())).encode() if is_here else b"the metrics are at /metrics\n"
            self.send_response(200 if is_here else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise RunError(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}") from error
    server.daemon_threads = True
    click.echo(f"metrics on http://{host}:{server.server_address[1]}/metrics", err=True)
    with server:
        server.serve_forever()
