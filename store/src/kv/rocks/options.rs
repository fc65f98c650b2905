//! How RocksDB is set up: sizes, threads, compression. What is decided here is in no file format but its own.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, Options};

use crate::{kv::Family, planted};

/// All families are flushed together when one's buffer is full.
const WRITE_BUFFER_BYTES: usize = 64 << 20;
const SMALL_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Far below what is read of one when a database is opened.
const MANIFEST_BYTES: usize = 64 << 20;
pub(super) const MAX_OPEN_FILES: i32 = 512;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const BLOCK_BYTES: usize = 16 << 10;

pub(super) fn database_options() -> Result<Options, rocksdb::Error> {
    let mut env = Env::new()?;
    env.set_low_priority_background_threads(1);
    env.set_high_priority_background_threads(1);
    env.lower_thread_pool_io_priority();
    env.lower_thread_pool_cpu_priority();
    let mut options = Options::default();
    options.set_env(&env);
    options.set_atomic_flush(!planted("families-flushed-apart"));
    options.set_max_background_jobs(2);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    Ok(options)
}

pub(super) fn family_options(family: Family, cache: Option<&Cache>) -> Options {
    let mut table = BlockBasedOptions::default();
    match cache {
        Some(cache) => table.set_block_cache(cache),
        None => table.disable_cache(),
    }
    table.set_block_size(BLOCK_BYTES);
    table.set_format_version(5);
    if matches!(family, Family::Cur) {
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_write_buffer_size(match family {
        Family::Cur | Family::Hist | Family::Log => WRITE_BUFFER_BYTES,
        Family::Idx | Family::Lease | Family::LeaseKey | Family::Meta | Family::Ended => {
            SMALL_WRITE_BUFFER_BYTES
        }
    });
    options.set_max_write_buffer_number(3);
    options
}
