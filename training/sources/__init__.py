"""One module a file format; each turns files into ``Samples`` or says which file, line and value is wrong."""
