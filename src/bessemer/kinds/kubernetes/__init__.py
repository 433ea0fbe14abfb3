"""What Kubernetes' own groups have and its clients (Helm, kopf, client-go, Argo CD, Flux) cannot do without.

ConfigMap, Secret and Lease are kinds: kept as they were written, followed by nothing. Namespace and the Event of
events.k8s.io are views of what is kept under another name. CustomResourceDefinition says that our kinds are there.
"""
