select * from {schema}.{view} where %(name)s::text is null or name = %(name)s
