"""How a run lies on disk: names, journal, HDF5, claims, and the one function that reads it all.

`layout` knows every file name, `fs` every way to change a file, `journal` the append-only log,
`hdf5` the file that pandas opens, `snapshot` a run's tables as of now, `fold` how the journal gets
into `store.h5`, `claims` who may write, `scan` which runs a folder has, `status` how a run is.
Nothing here knows of Store, Table or DataFrame.
"""
