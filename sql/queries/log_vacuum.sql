select {schema}.log_vacuum(%(vectorizer)s)
