def cache_main(argv):
    pass
