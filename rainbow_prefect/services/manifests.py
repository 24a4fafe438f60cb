"""A service as files for those who run it elsewhere: Kubernetes objects, or a compose file. Reads no secret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import CallError
from ..masking import PLACEHOLDER, sensitive
from .local import variable_of

if TYPE_CHECKING:
    from ..app import Service

_PORT = 8000
_MOST_REPLICAS = 10


def kubernetes(services: Iterable[Service]) -> str:
    """Deployment, Service and HorizontalPodAutoscaler of each; secrets are named, not held.

    Raises:
        CallError: a service has no image.
    """
    return "---\n".join(_yaml(one) for service in services for one in _objects(service))


def _objects(service: Service) -> Sequence[dict[str, Any]]:
    name = service.service.lower().replace("_", "-")
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": service.app.name, **service.labels}
    chosen = {"app.kubernetes.io/name": name}
    port = service.port or _PORT
    replicas = service.replicas or 1
    container: dict[str, Any] = {
        "name": "service",
        "image": _image(service),
        "ports": [{"name": "http", "containerPort": port}],
        "env": [*_plain_env(service), *_secret_env(service)],
        "startupProbe": {**_probe("/readyz"), "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {**_probe("/readyz"), "periodSeconds": 5},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
        "resources": _resources(service),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},  # until no endpoint names the pod any more
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": chosen},
        "strategy": rolling,
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 45},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    metadata = {"name": name, "labels": labels}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": chosen, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata,
            "spec": {
                "scaleTargetRef": target,
                "minReplicas": replicas,
                "maxReplicas": max(_MOST_REPLICAS, replicas),
                "metrics": [cpu],
            },
        },
    ]


def compose(services: Iterable[Service]) -> str:
    """A compose file; variables with secrets come from the environment of `docker compose`.

    Raises:
        CallError: a service has no image.
    """
    made: dict[str, Any] = {}
    for service in services:
        port = service.port or _PORT
        env = {one["name"]: one["value"] for one in _plain_env(service)}
        env |= {name: f"${{{name}:?}}" for name, _ in _secrets(service)}
        made[service.service] = {
            "image": _image(service),
            "environment": env,
            "ports": [f"127.0.0.1:{port}:{port}"],
            "restart": "unless-stopped",
            "stop_grace_period": "40s",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        }
    return _yaml({"services": made})


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=110)
    return text


def _image(service: Service) -> str:
    if service.image is None:
        raise CallError(f"service '{service.service}' has no image; add `image: NAME`")
    return service.image


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 4}


def _plain_env(service: Service) -> list[dict[str, str]]:
    written = {**service.app.env_vars, **service.env_vars}
    shown = {name: value for name, value in written.items() if not (sensitive(name) or PLACEHOLDER.search(value))}
    return [{"name": name, "value": value} for name, value in {**shown, "RAINBOW_SERVICE": service.service}.items()]


def _secrets(service: Service) -> list[tuple[str, str]]:
    given = [(one.env, one.secret) for one in service.secrets if one.env is not None]
    return [*given, *((variable_of(one.secret), one.secret) for one in service.auth)]


def _secret_env(service: Service) -> list[dict[str, Any]]:
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.lower().replace("_", "-"), "key": "credentials"}}}
        for name, secret in _secrets(service)
    ]


def _resources(service: Service) -> dict[str, Any]:
    asked = service.resources
    if asked is None:
        return {"requests": {"cpu": "100m", "memory": "128Mi"}}
    requests = {"cpu": asked.request_cpu or "100m", "memory": asked.request_memory or "128Mi"}
    limits = {key: value for key, value in (("cpu", asked.limit_cpu), ("memory", asked.limit_memory)) if value}
    return {"requests": requests, **({"limits": limits} if limits else {})}
