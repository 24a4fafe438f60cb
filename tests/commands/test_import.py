"""`rainbow import`: files of Liminal and dag-factory become a rainbow.yml that checks and runs."""

from __future__ import annotations

import yaml

from tests.conftest import Project, Rainbow

LIMINAL = """
    name: iris
    owner: team
    volumes: [{volume: data, local: {path: ./data}}]
    executors:
      - {executor: k8s, type: kubernetes, resources: {}, get_logs: true}
      - {executor: emr, type: emr, cluster_name: c}
    images: [{image: "iris:1", type: python, source: code}]
    depends: nothing
    pipelines:
      - pipeline: train
        start_date: 2020-01-01
        timeout_minutes: 30
        schedule: 0 6 * * *
        depends_on_past: true
        metrics: {namespace: Iris, backends: [cloudwatch]}
        tasks:
          - {task: start, type: job_start}
          - {task: train, type: python, image: "iris:1", cmd: python train.py, executor: emr, env: {A: b}, do_xcom_push: true}
          - {task: stack, type: create_cloudformation_stack, stack_name: s}
"""
DAGS = """
    default:
      default_args: {owner: dana, retries: 2, retry_delay_sec: 30, start_date: 2024-01-01, email: [a@b.c]}
      schedule_interval: 0 1 * * *
    shop.daily:
      description: Sells.
      catchup: false
      tasks:
        extract:
          operator: airflow.operators.bash_operator.BashOperator
          bash_command: "echo extract {{ ds }} {{ params.x }}"
        load:
          operator: airflow.providers.standard.operators.python.PythonOperator
          python_callable_name: load
          python_callable_file: CODE/load.py
          op_kwargs: {n: 3}
          dependencies: [extract]
        wait:
          operator: airflow.sensors.time_sensor.TimeSensor
          dependencies: [load]
          poke_interval: 5
    manual:
      schedule_interval: None
      tasks: [{task_id: hello, operator: airflow.operators.empty.EmptyOperator}]
"""


def test_a_file_of_liminal_is_taken_and_the_rest_is_told(rainbow: Rainbow, project: Project) -> None:
    folder = project({"old/liminal.yml": LIMINAL, "old/code/train.py": "", "new/code/train.py": "", "new/data/a": ""})

    done = rainbow("import", "liminal", "old", "--to", "new", "--json", cwd=folder)

    (file,) = done.json["files"]
    assert sorted(file["not_mapped"]) == [
        "liminal.yml: depends: is no key here; left out",
        "liminal.yml: executor 'emr': type 'emr' has no counterpart; left out, its tasks run in a process",
        "liminal.yml: executor 'k8s': `get_logs` has no counterpart; left out",
        "liminal.yml: executor 'k8s': `resources` has no counterpart; left out",
        "liminal.yml: pipeline 'train', task 'train': `do_xcom_push` is no key of type 'python'; left out",
        "liminal.yml: pipeline 'train', task 'train': `env`, which Liminal ignores, is taken as `env_vars`",
        "liminal.yml: pipeline 'train': `depends_on_past` has no counterpart; a pipeline that waits for its last run has "
        "`concurrency_limit: 1`",
        "liminal.yml: pipeline 'train': task 'stack' of type 'create_cloudformation_stack' has no counterpart; left out",
    ]
    written = yaml.safe_load((folder / "new/rainbow.yml").read_text())
    assert [one["task"] for one in written["pipelines"][0]["tasks"]] == ["start", "train"]
    assert rainbow("check", "new", "--json", cwd=folder).json["problems"] == []


def test_dags_of_dag_factory_check_and_run(rainbow: Rainbow, project: Project, prefect_server: str) -> None:
    folder = project({"dags.yml": DAGS, "load.py": "def load(n):\n    print('loaded', n)\n"})
    (folder / "dags.yml").write_text((folder / "dags.yml").read_text().replace("CODE", str(folder)))

    done = rainbow("import", "dag-factory", "dags.yml", cwd=folder)

    assert (
        "  dags.yml: DAG 'shop.daily': the name is written 'shop_daily': only letters, digits, '-' and '_' are allowed"
        in done.out
    )
    assert "`default_args.email` has no counterpart; left out" in done.out
    assert (
        "operator 'airflow.sensors.time_sensor.TimeSensor' has no counterpart; a task that fails stands for it"
        in done.out
    )
    assert "the template {{ params.x }} of Airflow is kept as text" in done.out
    checked = rainbow("check", "rainbow.yml", "--json", cwd=folder).json
    assert (checked["problems"], checked["pipelines"]) == ([], ["shop_daily", "manual"])
    report = rainbow("run", "rainbow.yml", "-p", "shop_daily", "-q", "--json", cwd=folder, code=1).json
    tails = {one["task"]: one["log_tail"] for one in report["tasks"]}
    assert tails["extract"] == ["extract 2024-01-01 {{ params.x }}"]
    assert tails["load"] == ["loaded 3"]


def test_what_is_there_is_kept(rainbow: Rainbow, project: Project) -> None:
    folder = project({"a/liminal.yml": LIMINAL, "a/rainbow.yml": "name: mine\n", "dags.yml": "a: 1\n", "empty/x": ""})

    assert rainbow("import", "liminal", "a", cwd=folder, code=2).err == (
        "Error: a/rainbow.yml exists already; add --force to write over it, or --to FOLDER\n"
    )
    assert rainbow("import", "dag-factory", "dags.yml", cwd=folder, code=2).err == "Error: dags.yml has no DAG\n"
    assert rainbow("import", "liminal", "empty", cwd=folder, code=2).err == (
        "Error: there is no liminal.yml and no rainbow.yml in empty\n"
    )
