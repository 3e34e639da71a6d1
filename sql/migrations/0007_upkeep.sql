-- Chores that any worker may do; who finds one due does it, and the others wait for the next time.

create table {schema}.upkeep (
  vectorizer integer not null references {schema}.vectorizer on delete cascade,
  task text not null,
  due_at timestamptz not null,
  primary key (vectorizer, task)
) with (fillfactor = 50);
comment on table {schema}.upkeep is 'When each chore of each vectorizer is due again.';
