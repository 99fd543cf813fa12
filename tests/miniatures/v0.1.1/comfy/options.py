parsing = False


def enable_args_parsing(wanted=True):
    global parsing
    parsing = wanted
