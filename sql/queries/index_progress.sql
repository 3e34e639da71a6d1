select p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total
from pg_stat_progress_create_index p
where p.datname = current_database()
  and (p.relid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))
       or p.relid in (select inhrelid from pg_inherits
                      where inhparent = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text))))
limit 1
