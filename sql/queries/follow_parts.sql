select {schema}.follow_parts(%(vectorizer)s)
