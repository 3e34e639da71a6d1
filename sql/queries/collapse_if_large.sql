select {schema}.collapse_if_large(%(name)s)
