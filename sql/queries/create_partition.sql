create table {child} (like {parent} including all)
