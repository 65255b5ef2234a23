"""The operator of a cluster: watches at the edge, a queue of jobs, and the plan for each that something befell."""
