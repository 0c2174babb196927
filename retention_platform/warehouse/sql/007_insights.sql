-- What was said about videos, and from which facts. Rows are only ever added: the newest of a video is the one shown.

create table if not exists marts.ai_insights
(
    video_id String comment 'The video.',
    made_at DateTime64(3, 'UTC') comment 'When the analysis was made, UTC.',
    mode LowCardinality(String) comment 'demo: by rules; openai: by a language model.',
    model LowCardinality(String) comment 'Name of the language model, or version of the rules.',
    prompt_version LowCardinality(String) comment 'Version of the prompt; empty for rules.',
    facts_version LowCardinality(String) comment 'Version of how facts are made of marts.',
    facts_hash String comment 'Differs when any fact does.',
    grade LowCardinality(String) comment 'good, average, poor or insufficient_data.',
    headline String comment 'The analysis in one line.',
    note String comment 'Why it is not what was asked for; empty when it is.',
    calls UInt32 comment 'Answers of a language model asked for.',
    input_tokens UInt64 comment 'Tokens read by the language model.',
    output_tokens UInt64 comment 'Tokens written by the language model.',
    facts String comment 'The facts as JSON.' codec(ZSTD(3)),
    analysis String comment 'The analysis as JSON.' codec(ZSTD(3))
)
engine = MergeTree
order by (video_id, made_at)
comment 'One row an analysis of a video: what happens in it, where and why people leave, what to change. History is kept.';
