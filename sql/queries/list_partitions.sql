select n.nspname, c.relname, substring(bound from 'FROM \(''([^'']*)''\)')::timestamptz,
       substring(bound from 'TO \(''([^'']*)''\)')::timestamptz
from pg_inherits i
join pg_class c on c.oid = i.inhrelid and c.relispartition
join pg_namespace n on n.oid = c.relnamespace,
     pg_get_expr(c.relpartbound, c.oid) bound
where i.inhparent = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
order by 3 nulls first, 2
