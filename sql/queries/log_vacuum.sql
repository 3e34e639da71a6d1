select {schema}.log_vacuum(%(name)s)
