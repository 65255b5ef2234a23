"""A manifest that cannot be used says where and why, and ends with exit code 2."""

import pytest

from support.local import manifest, written
from swarm_operator.cli import main
from swarm_operator.cli.manifest import ManifestError, change, load

GOOD = """\
apiVersion: swarm.training/v1alpha1
kind: SwarmTrainingJob
metadata:
  name: job
spec:
  algorithm:
    name: PSOPS
    psops: {social: 1.0}
  sync:
    quorum: 50%
  particles:
    replicas: 4
    minReplicas: 2
    template:
      spec:
        containers:
        - name: trainer
          command: [python, train.py]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("minReplicas: 2", "minReplicas: 5", ":11: spec.particles: minReplicas 5 exceeds replicas 4: lower it"),
        ("minReplicas: 2", "minReplicas: two", ":13: spec.particles.minReplicas: Input should be a valid integer"),
        ("minReplicas: 2", "minReplica: 2", ":13: spec.particles.minReplica: unknown field; did you mean minReplicas?"),
        (
            "psops: {social",
            "psops: {sociable",
            ":8: spec.algorithm.psops.sociable: unknown field; did you mean social?",
        ),
        ("quorum: 50%", "quorum: 150%", ":10: spec.sync.quorum: Input should be a valid integer"),
        ("quorum: 50%", "quorum: 150%", ", or: String should match pattern"),
        ("name: PSOPS", "name: PSO", ":7: spec.algorithm.name: Input should be 'PSOPS', 'LocalSGD' or 'EASGD'"),
        ("name: PSOPS", "name: EASGD", ":6: spec.algorithm: psops is set, but name is EASGD: remove psops"),
        ("    name: PSOPS\n", "", ":6: spec.algorithm.name: is missing"),
        ("  name: job", "  name: Job", ":4: metadata.name: 'Job' must start with a letter, hold only a-z"),
        ("    replicas: 4\n", "    replicas: 4\n" * 2, ":13: spec.particles.replicas: stands here twice: remove one"),
        ("v1alpha1", "v2", ":1: apiVersion: Input should be 'swarm.training/v1alpha1'"),
        ("kind: SwarmTrainingJob\n", "", ":1: kind: must be SwarmTrainingJob"),
        (
            "- name: trainer",
            "- name: 7",
            ":17: spec.particles.template.spec.containers[0].name: Input should be a valid",
        ),
        ("    replicas: 4\n", "   replicas: 4\n", ":13: not YAML: mapping values are not allowed here"),
        (GOOD, "", ": holds 0 documents of kind SwarmTrainingJob, and must hold one"),
        (GOOD, f"{GOOD}---\n{GOOD}", ": holds 2 documents of kind SwarmTrainingJob, and must hold one"),
        (GOOD, "just words", ": holds no SwarmTrainingJob"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_errors_name_line_field_and_remedy(tmp_path, capsys, command, old, new, said):
    assert old in GOOD
    path = tmp_path / "job.yaml"
    path.write_text(GOOD.replace(old, new))
    directory = ["--dir", str(tmp_path / "run")] if command == "run" else []
    assert main([command, str(path), *directory]) == 2
    printed = capsys.readouterr()
    assert f"{path}" in printed.err
    assert said in printed.err
    assert not (tmp_path / "run").exists()


def test_all_errors_are_told_at_once(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD.replace("social: 1.0", "social: 9, inertia: -1").replace("replicas: 4", "replicas: 0"))
    with pytest.raises(ManifestError) as caught:
        load(path)
    fields = [problem.split(": ")[1] for problem in caught.value.problems]
    assert fields == ["spec.algorithm.psops.inertia", "spec.algorithm.psops.social", "spec.particles.replicas"]


def test_other_documents_beside_it_are_passed_over(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(f"kind: Namespace\n---\n{GOOD}---\n")
    assert load(path).job.metadata.name == "job"


def test_every_run_gets_a_uid_of_its_own(tmp_path):
    path = written(tmp_path, manifest(["true"]))
    assert load(path).job.metadata.uid != load(path).job.metadata.uid


def test_set_changes_and_adds_fields(tmp_path):
    changes = [
        change("spec.particles.replicas=8"),
        change("spec.algorithm.psops.social=0.5"),
        change(r"spec.particles.template.spec.containers[0].resources.limits.nvidia\.com/gpu=1"),
        change("spec.particles.template.spec.containers[0].args=[--lr, '0.1']"),
        change("metadata.name=other"),
    ]
    loaded = load(written(tmp_path, manifest(["true"])), changes)
    assert loaded.job.spec.particles.replicas == 8
    assert loaded.job.spec.algorithm.psops.social == 0.5
    container = loaded.data["spec"]["particles"]["template"]["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert container["args"] == ["--lr", "0.1"]
    assert loaded.job.metadata.name == "other"
    with pytest.raises(ManifestError, match=r"containers\[3\].args: cannot be set: there is no .*containers\[3\]"):
        load(loaded.path, [change("spec.particles.template.spec.containers[3].args=[]")])
    with pytest.raises(ManifestError, match=r"spec.particles.replica: unknown field; did you mean replicas"):
        load(loaded.path, [change("spec.particles.replica=8")])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--set", "spec.particles.replicas"],
        ["--set", "=3"],
        ["--set", "spec.seed=[1"],
        ["--kill", "2"],
        ["--kill", "2@150%"],
        ["--kill", "center@50%"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments, *(["job.yaml"] if arguments else [])])
    assert caught.value.code == 2
    assert "usage: swarm run" in capsys.readouterr().err


def test_a_kill_of_a_particle_that_never_is_and_a_used_folder_are_refused(tmp_path, capsys):
    path = str(written(tmp_path, manifest(["true"])))
    assert main(["run", path, "--kill", "1@50%", "--dir", str(tmp_path / "run")]) == 2
    assert "--kill particle-1@50%: particles are 0 to 0" in capsys.readouterr().err
    assert main(["run", path, "--dir", str(tmp_path)]) == 2
    assert f"{tmp_path} is not empty: name another folder with --dir" in capsys.readouterr().err


def test_validate_tells_what_a_cluster_takes_and_this_machine_does_not(tmp_path, capsys):
    data = manifest(["true"], container={"envFrom": [{"secretRef": {"name": "s"}}]})
    path = written(tmp_path, data)
    assert main(["validate", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "swarm run would refuse it: " in printed
    assert f"{path}: valid\n" in printed
    assert main(["run", str(path), "--dir", str(tmp_path / "run")]) == 2


def test_commands_without_a_run_say_so(tmp_path, capsys):
    for arguments in (["status", str(tmp_path)], ["kill", "--dir", str(tmp_path), "particle-0"]):
        assert main(arguments) == 2
        assert f"{tmp_path} is not the folder of a run" in capsys.readouterr().err


def test_what_a_cluster_would_keep_on_claims_goes_to_the_folder_of_the_run_and_this_is_said_once(tmp_path):
    claim = {"existingClaim": "models"}
    data = manifest(["true"], synchronizer={"output": claim, "checkpoint": claim})
    assert load(written(tmp_path, data)).recipes.notes == (
        "synchronizer.output is ignored on one machine: the model goes to the folder of the run",
        "synchronizer.checkpoint's claim is ignored on one machine: checkpoints go to the folder of the run",
    )
    assert load(written(tmp_path, manifest(["true"]))).recipes.notes == ()
