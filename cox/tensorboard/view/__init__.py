"""The parts of `cox-tensorboard`, whose public names are in `cox.tensorboard_view`.

`selection` says which runs are shown, `names` what they are called, `links` is the directory of links
that the two come to, and `server` the program that shows it.
"""
