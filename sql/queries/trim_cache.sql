select {schema}.trim_cache()
