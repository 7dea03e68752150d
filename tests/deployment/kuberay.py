"""The fields of KubeRay's RayCluster and RayJob, as its API reference names them (ray.io/v1, KubeRay 1.6).

This is not the CRD, which no package index carries: a model of those fields that our manifests could use, read in the documentation. What
is not modelled is refused, so a field that is misspelled or made up is found; whether an operator of another version takes it is not shown.
Pod templates are the exception: they are Kubernetes' own, and validated against its schema.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, strict=True)]
Strings = dict[str, Annotated[str, Field(strict=True)]]
PodTemplate = dict[str, Any]


class Model(BaseModel):
    """Knows its fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Metadata(Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$")]
    namespace: str
    labels: Strings = {}
    annotations: Strings = {}


class AuthOptions(Model):
    mode: Literal["token", "disabled"]
    secretName: str | None = None
    enableK8sTokenAuth: bool = False


class AutoscalerOptions(Model):
    resources: dict[str, Strings] = {}
    image: str | None = None
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    securityContext: dict[str, Any] = {}
    idleTimeoutSeconds: Count | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, Any]] = []


class HeadGroup(Model):
    template: PodTemplate
    headService: dict[str, Any] | None = None
    enableIngress: bool = False
    rayStartParams: Strings = {}
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(Model):
    groupName: str
    replicas: Count = 0
    minReplicas: Count = 0
    maxReplicas: Count
    idleTimeoutSeconds: Count | None = None
    rayStartParams: Strings = {}
    template: PodTemplate
    numOfHosts: Count = 1


class ClusterSpec(Model):
    rayVersion: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []
    suspend: bool = False
    managedBy: str | None = None


class JobSpec(Model):
    entrypoint: str
    rayClusterSpec: ClusterSpec
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    submitterPodTemplate: PodTemplate | None = None
    submitterConfig: dict[str, int] | None = None
    backoffLimit: Count = 0
    activeDeadlineSeconds: Annotated[int, Field(gt=0)] | None = None
    shutdownAfterJobFinishes: bool = False
    ttlSecondsAfterFinished: Count = 0
    runtimeEnvYAML: str | None = None
    jobId: str | None = None
    metadata: Strings = {}
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    entrypointResources: str | None = None
    suspend: bool = False


class RayCluster(Model):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Model):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


KINDS: dict[str, type[RayCluster | RayJob]] = {"RayCluster": RayCluster, "RayJob": RayJob}
"""Models by `kind`."""


def cluster_of(document: RayCluster | RayJob) -> ClusterSpec:
    """The cluster that a manifest asks for."""
    return document.spec if isinstance(document, RayCluster) else document.spec.rayClusterSpec


def pod_templates(document: RayCluster | RayJob) -> dict[str, PodTemplate]:
    """Every pod template of a manifest, by what it is for."""
    cluster = cluster_of(document)
    templates = {"head": cluster.headGroupSpec.template}
    templates |= {group.groupName: group.template for group in cluster.workerGroupSpecs}
    if isinstance(document, RayJob) and document.spec.submitterPodTemplate:
        templates["submitter"] = document.spec.submitterPodTemplate
    return templates
