-- Which rejected messages were sent again, mended or because they are the contract by now. The rejected rows stay:
-- completeness is checked offset by offset, and theirs is accounted for by them.

create table if not exists raw.replayed_rejects
(
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    replayed_at DateTime64(3, 'UTC') default now64(3, 'UTC')
)
engine = ReplacingMergeTree
order by (topic, log_id, partition, offset)
comment 'Rejected messages that retention rejects replay has sent again.';
