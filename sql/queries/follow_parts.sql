select {schema}.follow_parts(%(name)s)
