"""Pods from templates: the user's words are kept, the operator's are added."""

import json

import pytest

from kubernetes_objects import a_job, environment, the_trainer
from swarm_api import env
from swarm_api.settings import Settings
from swarm_operator.backends.kubernetes import children, labels
from swarm_operator.backends.kubernetes.placement import keep_off
from swarm_operator.backends.kubernetes.pods import particle_pod, synchronizer_pod
