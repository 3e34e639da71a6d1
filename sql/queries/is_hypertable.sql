select exists (select from timescaledb_information.hypertables
               where hypertable_schema = %(schema)s and hypertable_name = %(table)s)
