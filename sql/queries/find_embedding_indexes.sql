select distinct o.opcname
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_am m on m.oid = c.relam and m.amname in ('hnsw', 'ivfflat', 'diskann')
join pg_opclass o on o.oid = any (i.indclass)
where i.indisvalid and i.indrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
