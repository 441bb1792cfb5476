#!/usr/bin/python3
"""Check an MPIJob against the fields that kubeflow.org/v2beta1 has, where a slip of the pen
would be dropped silently or refused by the cluster. Prints the launcher's arguments, one
a line.

Usage: check_mpijob.py FILE
"""
import sys

import yaml

CONTAINER = {"name", "image", "imagePullPolicy", "command", "args", "env", "resources",
             "securityContext", "volumeMounts"}
SPEC = {"slotsPerWorker", "launcherCreationPolicy", "sshAuthMountPath", "runPolicy",
        "mpiReplicaSpecs", "mpiImplementation", "runLauncherAsWorker"}
POLICY = {"cleanPodPolicy", "backoffLimit", "ttlSecondsAfterFinished",
          "activeDeadlineSeconds", "suspend", "schedulingPolicy", "managedBy"}


def known(what, given, fields):
    if extra := set(given) - fields:
        sys.exit(f"{what}: expected {sorted(fields)}, got also {sorted(extra)}")


def expect(what, true):
    if not true:
        sys.exit(f"expected {what}")


def check_replica(name, replica):
    known(name, replica, {"replicas", "restartPolicy", "template"})
    expect("a whole number of replicas", type(replica["replicas"]) is int)
    expect("a policy of restarts", replica["restartPolicy"] in ("Never", "OnFailure"))
    pod = replica["template"]["spec"]
    known(f"{name} pod", pod, {"containers", "volumes"})
    expect("one container", len(pod["containers"]) == 1)
    container = pod["containers"][0]
    known(f"{name} container", container, CONTAINER)
    for word in container["command"] + container["args"]:
        expect(f"text in the command, got {word!r}", isinstance(word, str))
    for variable in container.get("env", []):
        expect("text in the environment", isinstance(variable["value"], str))
    volumes = {v["name"]: v["persistentVolumeClaim"]["claimName"]
               for v in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        expect(f"a volume for {mount['mountPath']}", mount["name"] in volumes)
    return container, set(volumes.values())


def main(path):
    with open(path, encoding="utf-8") as file:
        documents = {d["kind"]: d for d in yaml.safe_load_all(file)}
    job = documents["MPIJob"]
    known("MPIJob", job, {"apiVersion", "kind", "metadata", "spec"})
    expect("v2beta1", job["apiVersion"] == "kubeflow.org/v2beta1")
    spec = job["spec"]
    known("spec", spec, SPEC)
    known("runPolicy", spec["runPolicy"], POLICY)
    expect("a policy known to the operator",
           spec["launcherCreationPolicy"] in ("AtStartup", "WaitForWorkersReady"))
    known("mpiReplicaSpecs", spec["mpiReplicaSpecs"], {"Launcher", "Worker"})
    launcher, _ = check_replica("Launcher", spec["mpiReplicaSpecs"]["Launcher"])
    worker, claims = check_replica("Worker", spec["mpiReplicaSpecs"]["Worker"])
    expect("one image", launcher["image"] == worker["image"])
    expect("one user", launcher["securityContext"] == worker["securityContext"])
    claimed = documents["PersistentVolumeClaim"]["metadata"]["name"]
    expect(f"the volume {claimed} in use", claims == {claimed})
    print("\n".join(launcher["args"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
