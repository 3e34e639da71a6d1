select to_regclass(format('%%I.%%I', %(schema_name)s::text, %(name)s::text))::oid::bigint
