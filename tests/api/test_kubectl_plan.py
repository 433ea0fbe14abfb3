"""The real kubectl and a plan: what is asked is explained, and the answer is told where it is asked for."""

from __future__ import annotations

import pytest
import yaml

from bessemer.kinds.fleet.outline import Outline
from tests.api.test_kubectl import Stage, stage
from tests.api.test_planning import furnished

pytestmark = pytest.mark.real

__all__ = ["stage"]

REVIEW = """\
apiVersion: bessemer.dev/v1alpha1
kind: PlacementReview
spec:
  object:
    apiVersion: bessemer.dev/v1alpha1
    kind: Job
    metadata: {name: train}
    spec: {flavor: pair, members: 3, script: "true"}
"""


async def test_a_review_is_explained_and_answered(stage: Stage) -> None:
    run = stage.k.run
    assert "where an object would go" in await run("explain", "placementreview")
    assert "What would be created" in await run("explain", "placementreviews.spec.object")
    told = (await run("explain", "placementreview.status", "--recursive")).split("FIELDS:\n")[1].splitlines()
    fields = {field.alias or name for name, field in Outline.model_fields.items()}
    assert fields <= {line.split("\t<")[0].strip() for line in told}
    assert "microPerHour" in await run("explain", "--output=plaintext-openapiv2", "placementreview.status.price")
    async with furnished(stage.w):
        said = yaml.safe_load(await run("create", "-f", "-", "-o", "yaml", text=REVIEW))
        assert (said["kind"], said["status"]["fits"], len(said["status"]["replicas"])) == ("PlacementReview", True, 3)
        assert said["spec"]["object"]["spec"]["members"] == 3
        said = await run("create", "-f", "-", text=REVIEW.replace("object:", "thing:"), code=1)
        assert "thing" in said
        said = await run("create", "-f", "-", text=REVIEW.replace("members", "member"), code=1)
        assert 'unknown field "spec.member"' in said
