select {schema}.collapse_if_large(%(vectorizer)s)
