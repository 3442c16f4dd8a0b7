from __future__ import annotations

import logging

import pytest

pytest.importorskip("starlette")

from automl_tl.server.deployment import MAX_OTHERS, Deployment
from automl_tl_registry.errors import NotFoundError
from tests.server.toy_server import RED, ToyRegistry, open_toy, serving


def deployed(ref: str = "colors@production") -> tuple[Deployment, ToyRegistry]:
    registry = ToyRegistry()
    return Deployment(ref, registry, open_toy), registry  # type: ignore[arg-type] # what it uses of a registry


def test_deployment_follows_its_alias_in_both_directions() -> None:
    deployment, registry = deployed()

    answered = []
    for registry.production in (1, 2, 3, 1):
        deployment.follow()
        answered.append(deployment.current.ref)

    assert answered == ["colors@1", "colors@2", "colors@3", "colors@1"]
    assert deployment.num_replaced == 3


def test_deployment_keeps_the_old_version_if_the_new_one_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    deployment, registry = deployed()
    registry.production = 4

    with caplog.at_level(logging.ERROR):
        deployment.follow()
        deployment.follow()

    assert deployment.current.ref == "colors@1"
    assert deployment.num_failed == 1
    assert "colors@4 is damaged" in caplog.text


def test_deployment_of_a_name_stays_with_the_version_that_was_latest() -> None:
    deployment, _ = deployed("colors")

    assert (deployment.current.ref, deployment.alias) == ("colors@3", None)


def test_deployment_opens_other_versions_and_keeps_a_few() -> None:
    deployment, _ = deployed()
    opened = [deployment.version(text) for text in ("2", "3", "2")]

    assert opened[0] is opened[2]
    assert deployment.version("production") is deployment.current
    assert len({id(one) for one in opened}) == MAX_OTHERS


def test_deployment_needs_an_existing_version() -> None:
    with pytest.raises(NotFoundError):
        deployed("colors@9")


def test_requests_in_progress_end_on_the_version_they_began_with() -> None:
    with serving() as server:
        assert server.deployment is not None
        before = server.request("POST", "/", RED).headers["x-model-version"]
        server.registry.production = 2
        server.deployment.follow()
        after = server.request("POST", "/", RED).headers["x-model-version"]

    assert (before, after) == ("colors@1", "colors@2")
