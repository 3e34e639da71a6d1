-- Chores that any worker may do; who finds one due does it, and the others wait for the next time.

create table {schema}.upkeep (
  vectorizer integer not null references {schema}.vectorizer on delete cascade,
  task text not null,
  due_at timestamptz not null,
  primary key (vectorizer, task)
) with (fillfactor = 50);
comment on table {schema}.upkeep is 'When each chore of each vectorizer is due again.';

alter table {schema}.progress add column parts regclass[];
comment on column {schema}.progress.parts is 'The tables under the source that upkeep knows of; null before its first look.';

-- To give the end of a table back to the disk, VACUUM locks writers out. Upkeep does it where it pays.
do $$
declare
  log_table text;
begin
  for log_table in
    select v.log_table from {schema}.vectorizer v
    where to_regclass(format('%I.%I', {schema_name}, v.log_table)) is not null
  loop
    execute format('alter table %I.%I set (vacuum_truncate = false)', {schema_name}, log_table);
  end loop;
end $$;
