select {schema}.add_partition(%(vectorizer)s, %(name)s, %(start)s, %(end)s)
