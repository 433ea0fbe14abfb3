"""The product, one module per kind. `KINDS` is its table of contents; `HOST_SIDES` is what agents run for Claims.

To add a kind is to write its module and its line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bessemer.core.resource import Kind
from bessemer.kinds import event
from bessemer.kinds.billing import priceplan
from bessemer.kinds.compute import instance
from bessemer.kinds.fleet import claim, consolidation, flavor, host, image
from bessemer.kinds.host_side import HostSide
from bessemer.kinds.inference import endpoint, model, projectmodel, vetting
from bessemer.kinds.jobs import job
from bessemer.kinds.kubernetes import configmap, lease, namespace, newevent, secret
from bessemer.kinds.kubernetes.view import View
from bessemer.kinds.tenancy import (
    apikey,
    credential,
    identityprovider,
    project,
    role,
    rolebinding,
    session,
    signinpolicy,
    tenant,
    user,
)

KINDS: tuple[Kind[Any, Any], ...] = (
    tenant.KIND,
    project.KIND,
    user.KIND,
    role.KIND,
    rolebinding.KIND,
    session.KIND,
    identityprovider.KIND,
    signinpolicy.KIND,
    apikey.KIND,
    credential.KIND,
    host.KIND,
    claim.KIND,
    flavor.KIND,
    image.KIND,
    consolidation.KIND,
    instance.KIND,
    model.KIND,
    projectmodel.KIND,
    endpoint.KIND,
    vetting.KIND,
    job.KIND,
    priceplan.KIND,
    event.KIND,
    configmap.KIND,
    secret.KIND,
    lease.KIND,
)

VIEWS: tuple[View, ...] = (namespace.VIEW, newevent.VIEW)
"""What is served of kinds under other names, for clients of Kubernetes."""

HOST_SIDES: Mapping[str, HostSide] = MappingProxyType(
    {
        "Instance": instance.InstanceHost(),
        "Endpoint": endpoint.EndpointHost(),
        "Vetting": vetting.VettingHost(),
        "Job": job.JobHost(),
    }
)
