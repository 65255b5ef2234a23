"""Pods from templates: the user's words are kept, the operator's are added."""

import copy
import json

import pytest

from swarm_api import env
from swarm_api.settings import Settings
from swarm_operator.backends.kubernetes import children, labels
from swarm_operator.backends.kubernetes.placement import keep_off
from swarm_operator.backends.kubernetes.pods import particle_pod, synchronizer_pod
from unit.kubernetes.objects import a_job, environment, the_trainer

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def off(*nodes):
    return [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]


def test_a_particle_knows_who_it_is_and_where_the_synchronizer_is():
    job = a_job()
    pod = particle_pod(job, 2, 5)
    assert pod["metadata"]["name"] == pod["spec"]["hostname"] == "mnist-particle-2-5"
    assert pod["metadata"]["labels"].items() >= {
        (labels.JOB_NAME, "mnist"),
        (labels.JOB_UID, "uid-1"),
        (labels.ROLE, "particle"),
        (labels.PARTICLE_INDEX, "2"),
        (labels.INCARNATION, "5"),
    }
    found = environment(pod)
    assert found.items() >= {(env.PARTICLE_INDEX, "2"), (env.INCARNATION, "5"), (env.NAMESPACE, "team")}
    assert found[env.INSTANCE_UID] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert found[env.SYNCHRONIZER_ADDRESS] == f"{children.service_name(job)}.team.svc:29400"
    assert env.REPORT_TOKEN_FILE not in found
    assert {name for name in found if name.startswith("SWARM_")} <= env.ALL


def test_the_link_secret_reaches_both_and_the_report_token_the_synchronizer_only():
    job = a_job()
    keys = {
        name: [item["key"] for volume in pod["spec"]["volumes"] for item in volume.get("secret", {}).get("items", ())]
        for name, pod in (("particle", particle_pod(job, 0, 1)), ("synchronizer", synchronizer_pod(job, 1)))
    }
    assert keys == {"particle": ["link-secret"], "synchronizer": ["link-secret", "report-token"]}
    body = children.secret(job, b"k" * 32)
    assert set(body["stringData"]) == {"link-secret", "report-token"}
    assert body == children.secret(job, b"k" * 32), "it can be told again at any time"


def test_the_template_stays_as_it_is_and_is_not_touched():
    metadata = {"labels": {"team": "vision", "app.kubernetes.io/name": "theirs"}, "annotations": {"a": "b"}}
    spec = {
        "containers": [
            {"name": "sidecar", "image": "proxy", "env": [{"name": "A", "value": "1"}]},
            {"name": "trainer", "image": "mine", "env": [{"name": "LR", "value": "$(SWARM_PARTICLE_INDEX)"}]},
        ],
        "nodeSelector": {"gpu": "yes"},
        "futureField": {"x": 1},
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    template = {"metadata": copy.deepcopy(metadata), "spec": copy.deepcopy(spec)}
    pod = particle_pod(a_job(template=template), 0, 1)
    assert template == {"metadata": metadata, "spec": spec}
    assert pod["metadata"]["labels"].items() >= metadata["labels"].items()
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert pod["spec"].items() >= {"nodeSelector": {"gpu": "yes"}, "futureField": {"x": 1}}.items()
    assert pod["spec"]["volumes"][0] == spec["volumes"][0]
    sidecar, trainer = pod["spec"]["containers"]
    assert sidecar["env"] == spec["containers"][0]["env"], "SWARM_* go into the training container alone"
    assert trainer["env"][-1]["name"] == "LR", "so that it can refer to the others"


@pytest.mark.parametrize(
    ("pod", "container", "seen"),
    [
        ({}, {}, (False, "RuntimeDefault", False, "FallbackToLogsOnError")),
        (
            {"automountServiceAccountToken": True, "securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            {"securityContext": {"allowPrivilegeEscalation": True}, "terminationMessagePolicy": "File"},
            (True, "Unconfined", True, "File"),
        ),
        ({"securityContext": None}, {"securityContext": {"privileged": True}}, (False, "RuntimeDefault", None, None)),
        ({}, {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, (False, "RuntimeDefault", None, None)),
    ],
)
def test_it_is_restrained_unless_the_template_says_otherwise(pod, container, seen):
    made = particle_pod(a_job(pod=pod, container=container), 0, 1)["spec"]
    trainer = made["containers"][0]
    token, profile, escalation, policy = seen
    assert made["restartPolicy"] == "Never"
    assert made["automountServiceAccountToken"] is token
    assert made["securityContext"]["seccompProfile"]["type"] == profile
    assert trainer["securityContext"].get("allowPrivilegeEscalation") is escalation
    assert policy is None or trainer["terminationMessagePolicy"] == policy


def test_children_belong_to_the_job_without_holding_up_its_deletion():
    job = a_job(synchronizer={"output": {"volumeClaim": {"resources": {"requests": {"storage": "1Gi"}}}}})
    made = [particle_pod(job, 0, 1), synchronizer_pod(job, 1), children.service(job, 1), children.secret(job, b"")]
    for child in made:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("uid-1", True, False)
    (claim,) = children.claims(job)
    assert "ownerReferences" not in claim["metadata"], "the model outlives the job"


def test_children_of_jobs_of_one_name_have_names_of_their_own():
    one, other = (children.service_name(a_job(uid=uid)) for uid in ("uid-1", "uid-2"))
    assert one != other
    assert one.startswith("mnist-")
    assert len(one) == len("mnist-12345")


def test_the_service_names_one_incarnation():
    job = a_job()
    spec = children.service(job, 3)["spec"]
    names = {
        pod["metadata"]["name"]
        for pod in (particle_pod(job, 0, 3), synchronizer_pod(job, 2), synchronizer_pod(job, 3))
        if spec["selector"].items() <= pod["metadata"]["labels"].items()
    }
    assert names == {"mnist-synchronizer-3"}
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"]


def test_without_a_template_the_synchronizer_is_the_particles_image_and_asks_for_no_gpu():
    gpus = {"limits": {"nvidia.com/gpu": 1}}
    pod = {"imagePullSecrets": [{"name": "s"}], "securityContext": {"runAsUser": 7}, "tolerations": [{"key": "gpu"}]}
    made = synchronizer_pod(a_job(container={"resources": gpus, "imagePullPolicy": "Never"}, pod=pod), 1)
    trainer = the_trainer(made)
    assert (trainer["image"], trainer["imagePullPolicy"]) == ("mine", "Never")
    assert trainer["command"] == ["python", "-m", "swarm_trainer.synchronizer"]
    assert trainer["resources"] == {"requests": {"cpu": "250m", "memory": "1Gi"}}
    assert {port["containerPort"] for port in trainer["ports"]} == {29400, 29401}
    assert made["spec"]["imagePullSecrets"] == [{"name": "s"}]
    assert made["spec"]["securityContext"]["runAsUser"] == 7
    assert "tolerations" not in made["spec"]


def test_a_synchronizers_template_needs_neither_image_nor_command():
    container = {"name": "main", "resources": {"requests": {"cpu": "4"}}, "ports": [{"containerPort": 29401}]}
    made = synchronizer_pod(a_job(synchronizer={"template": {"spec": {"containers": [container]}}}), 1)
    trainer = the_trainer(made)
    assert (trainer["name"], trainer["image"], trainer["command"][0]) == ("main", "mine", "python")
    assert trainer["resources"] == {"requests": {"cpu": "4"}}
    assert [port["containerPort"] for port in trainer["ports"]] == [29401, 29400]


def test_the_synchronizer_reads_its_settings_from_an_annotation_of_its_pod():
    job = a_job()
    pod = synchronizer_pod(job, 1)
    assert Settings.model_validate_json(pod["metadata"]["annotations"][labels.SETTINGS]) == Settings.of(job)
    (volume,) = [each for each in pod["spec"]["volumes"] if "downwardAPI" in each]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == f"metadata.annotations['{labels.SETTINGS}']"
    (mount,) = [each for each in the_trainer(pod)["volumeMounts"] if each["name"] == volume["name"]]
    assert environment(pod)[env.SETTINGS_FILE] == f"{mount['mountPath']}/{item['path']}"


OWN = {"volumeClaim": {"resources": {"requests": {"storage": "1Gi"}}}}


@pytest.mark.parametrize(
    ("what", "storage", "claim", "folder"),
    [
        ("output", {"existingClaim": "models"}, "models", "mnist"),
        ("output", {"existingClaim": "models", "path": "a/b"}, "models", "a/b"),
        ("output", OWN, "mnist-output-", "mnist"),
        ("checkpoint", {"existingClaim": "models"}, "models", "mnist/checkpoints"),
        ("checkpoint", {"existingClaim": "models", "path": "a/b"}, "models", "a/b"),
        ("checkpoint", OWN, "mnist-checkpoint-", "mnist/checkpoints"),
    ],
)
def test_model_and_checkpoints_go_to_folders_of_the_job_on_a_claim(what, storage, claim, folder):
    job = a_job(synchronizer={what: storage})
    pod = synchronizer_pod(job, 1)
    (volume,) = [each for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each]
    assert volume["persistentVolumeClaim"]["claimName"].startswith(claim)
    (mount,) = [each for each in the_trainer(pod)["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["subPath"] == folder
    variables = {"output": env.OUTPUT_DIR, "checkpoint": env.CHECKPOINT_DIR}
    assert environment(pod)[variables.pop(what)] == mount["mountPath"]
    assert not variables.keys() & environment(pod).keys()
    made = children.claims(job)
    assert len(made) == ("volumeClaim" in storage)
    for each in made:
        assert each["spec"] == {"accessModes": ["ReadWriteOnce"], **storage["volumeClaim"]}
        assert each["metadata"]["name"] == volume["persistentVolumeClaim"]["claimName"]
    assert not {env.OUTPUT_DIR, env.CHECKPOINT_DIR} & environment(particle_pod(job, 0, 1)).keys()


@pytest.mark.parametrize(
    ("other", "volumes"), [({"existingClaim": "models"}, 1), ({"existingClaim": "more"}, 2), (OWN, 2)]
)
def test_model_and_checkpoints_share_the_volume_of_one_claim_and_never_a_folder(other, volumes):
    job = a_job(synchronizer={"output": {"existingClaim": "models"}, "checkpoint": other})
    pod = synchronizer_pod(job, 1)
    claims = [
        each["persistentVolumeClaim"]["claimName"] for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each
    ]
    assert len(claims) == len(set(claims)) == volumes
    found = [each for each in the_trainer(pod)["volumeMounts"] if "subPath" in each]
    assert [each["subPath"] for each in found] == ["mnist", "mnist/checkpoints"]
    assert [each["mountPath"] for each in found] == [
        environment(pod)[name] for name in (env.OUTPUT_DIR, env.CHECKPOINT_DIR)
    ]


def test_where_nothing_is_kept_there_is_no_folder_for_it():
    assert not {env.OUTPUT_DIR, env.CHECKPOINT_DIR} & environment(synchronizer_pod(a_job(), 1)).keys()
    assert children.claims(a_job()) == []


def term(**fields):
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [fields]}}}


EXPRESSION = {"key": "zone", "operator": "In", "values": ["a"]}
FIELD = {"key": "metadata.name", "operator": "In", "values": ["n7"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, term(matchFields=off("n1", "n2"))),
        ({"podAffinity": {"x": 1}}, {"podAffinity": {"x": 1}, **term(matchFields=off("n1", "n2"))}),
        (
            term(matchExpressions=[EXPRESSION]),
            term(matchExpressions=[EXPRESSION], matchFields=off("n1", "n2")),
        ),
        (term(matchFields=[FIELD]), term(matchFields=[FIELD, *off("n1", "n2")])),
        (term(), term()),
    ],
)
def test_a_pod_is_kept_off_nodes_whatever_else_it_asks_for(before, after):
    asked = json.dumps(before)
    assert keep_off(before, ["n1", "n2"]) == after
    assert json.dumps(before) == asked
    assert keep_off(before, []) == (before or {})


def test_every_alternative_of_a_node_selector_excludes_the_nodes():
    two = {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [EXPRESSION]}, {"matchFields": [FIELD]}]}
        }
    }
    terms = keep_off(two, ["n1"])["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert all(off("n1")[0] in each["matchFields"] for each in terms)


def test_a_replacement_is_kept_off_the_nodes_that_its_maker_names():
    affinity = particle_pod(a_job(), 0, 2, avoid=["n1"])["spec"]["affinity"]
    assert affinity == term(matchFields=off("n1"))
    assert "affinity" not in particle_pod(a_job(), 0, 1)["spec"]
