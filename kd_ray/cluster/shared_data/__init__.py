"""Data sets at a URL: `kd-ray data push` puts them there, and the nodes of a sweep with `placement.data_url` fetch them.

    <url>/sets/<set>/<version>.json   index: the shards of one version of a set
    <url>/sets/<set>/latest.json      the index that was pushed last
    <url>/shards/<sha256>             tar of some files, or a piece of a large file

    set_files.py      which sets a sweep needs, and which files each consists of
    data_index.py     the index, and the only place that spells these keys
    shards.py         files to shards, and back
    push_data.py      shards first, then the index
    find_sets.py      the indexes of a sweep's sets, and the sweep with its data on this machine
    fetch_data.py     shards of an index to a folder
    fetched_sets.py   the folders below `<data_root>/fetched`: one process fetches, sets in use stay, old ones are deleted

The sets of a sweep are fetched to one folder, which takes the place of the data root: so everything else reads it as it reads a data root.
Nothing is ever deleted at the URL.
"""
