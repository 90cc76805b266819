"""One module for each command of `cox`, imported when it is called."""
