select {schema}.fan_out(%(vectorizer)s, %(rows)s)
