"""Sweeps as jobs of a Ray cluster that somebody else keeps running: submit, watch, leave, come back.

    submission.py   what is sent: the checked sweep, modules of the user, and the name that tells one submission from another
    modules.py      what `--module` adds to it
    on_head.py      what runs on the head: compares versions, then becomes `kd-ray launch`
    client.py       the cluster's job server, through Ray's own client; the only module of the room that imports ray
    verbs.py        submit, list, follow, stop

Nothing of a job lives on the machine that submitted it. The job server keeps what was submitted and what the launch prints until its head
ends; what the sweep has achieved stands in the store, so the same submission to another head goes on with it.
"""
