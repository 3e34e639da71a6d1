alter table {parent} attach partition {child} for values from ({start}) to ({end})
