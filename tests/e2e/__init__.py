"""The whole product on a cluster: pods that train, and what is done to them. `python -m e2e up` makes the cluster."""
