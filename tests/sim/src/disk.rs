//! The disk under the simulation: a VFS around SQLite's own that fails when it is told to, and knows what a power cut
//! would leave.
//!
//! Files are real ones, on a file system in memory. Every write to a database or its `-wal` is remembered until it is
//! synced, by SQLite or by Rowcast's own fdatasync, which is taken from the system here. A power cut leaves what was
//! synced, and any part of the rest. Time and chance that SQLite asks for come from the seed.
//!
//! The only file with `unsafe` code in the project: SQLite's interface for a VFS is C.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once};

use rusqlite::ffi;

use crate::chance::Chance;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failing {
    /// One operation reports an I/O error.
    Once,
    /// From now on every operation reports an I/O error.
    Always,
    /// From now on nothing can be written: the disk is full.
    Full,
    /// The process is gone: nothing that it would have done happens any more.
    Dead,
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct Tracked {
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl Unsynced {
    fn apply(&self, to: &mut Vec<u8>, length: usize) {
        match self {
            Self::Write { offset, bytes } => {
                let bytes = &bytes[..length.min(bytes.len())];
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::Truncate(size) => to.resize(*size, 0),
        }
    }
}

#[derive(Debug)]
struct Armed {
    left: u64,
    failing: Failing,
    fired: bool,
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<PathBuf, Tracked>,
    armed: Option<Armed>,
    operations: u64,
    wall_millis: i64,
    chance: u64,
}

static DISK: Mutex<Disk> =
    Mutex::new(Disk { files: BTreeMap::new(), armed: None, operations: 0, wall_millis: 0, chance: 0 });

fn disk() -> MutexGuard<'static, Disk> {
    DISK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes the VFS the one that every connection of this process uses from now on.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(vfs::register);
}

/// Begins a new history: no file is known, and the chance that SQLite asks for comes from `seed`.
pub fn begin(seed: u64) {
    *disk() = Disk { chance: seed, ..Disk::default() };
    // Resets SQLite's own generator, so that it asks for a new seed.
    // SAFETY: a length of zero and no buffer is the documented way to do so.
    unsafe { ffi::sqlite3_randomness(0, std::ptr::null_mut()) };
}

/// The wall clock that SQLite sees from now on, in milliseconds since 1970.
pub fn set_wall(millis: i64) {
    disk().wall_millis = millis;
}

/// Has the operation after `left` others fail.
pub fn arm(left: u64, failing: Failing) {
    disk().armed = Some(Armed { left, failing, fired: false });
}

/// Ends the failing. Answers whether anything failed.
pub fn disarm() -> bool {
    disk().armed.take().is_some_and(|armed| armed.fired)
}

/// Ends the failing. Answers whether anything failed, and how many operations were still to go.
pub fn disarm_counting() -> (bool, u64) {
    disk().armed.take().map_or((false, 0), |armed| (armed.fired, armed.left))
}

/// Operations so far: a measure of where in its work a process is.
pub fn operations() -> u64 {
    disk().operations
}

/// Whether everything written to the file has been synced.
pub fn is_synced(path: &Path) -> bool {
    disk().files.get(path).is_none_or(|file| file.unsynced.is_empty())
}

/// Takes the file as it is for synced: it was put there from outside.
pub fn adopt(path: &Path) {
    let synced = std::fs::read(path).unwrap_or_default();
    disk().files.insert(path.to_owned(), Tracked { synced, unsynced: Vec::new() });
}

/// Forgets the files under a folder.
pub fn forget(folder: &Path) {
    disk().files.retain(|path, _| !path.starts_with(folder));
}

/// The power fails: what was not synced is there in part, or not at all. Every connection to the files must be closed.
/// Answers how many writes were lost, whole or in part.
pub fn cut_power(folder: &Path, chance: &mut Chance) -> u64 {
    let mut lost = 0;
    let mut disk = disk();
    for (path, file) in disk.files.iter_mut().filter(|(path, _)| path.starts_with(folder)) {
        let mut image = std::mem::take(&mut file.synced);
        let unsynced = std::mem::take(&mut file.unsynced);
        // In order up to a moment, or any of them: a disk may do either.
        let in_order = chance.one_in(2);
        let until = chance.below(unsynced.len() as u64 + 1) as usize;
        for (at, operation) in unsynced.iter().enumerate() {
            let keep = if in_order { at < until } else { chance.one_in(2) };
            if keep {
                operation.apply(&mut image, usize::MAX);
                continue;
            }
            lost += 1;
            if let (true, Unsynced::Write { bytes, .. }) = (chance.one_in(4), operation) {
                let torn = chance.below(bytes.len() as u64) as usize / 512 * 512;
                operation.apply(&mut image, torn);
            }
        }
        if path.exists() || !image.is_empty() {
            std::fs::write(path, &image).expect("a file of the simulation can be written");
        }
        file.synced = image;
    }
    lost
}

/// What one operation comes to: `Err` with the code it fails with.
fn gate(writes: bool) -> Result<(), c_int> {
    let mut disk = disk();
    disk.operations += 1;
    let Some(armed) = &mut disk.armed else { return Ok(()) };
    if armed.failing == Failing::Full && !writes {
        return Ok(());
    }
    if !armed.fired {
        if armed.left > 0 {
            armed.left -= 1;
            return Ok(());
        }
        armed.fired = true;
    } else if armed.failing == Failing::Once {
        return Ok(());
    }
    Err(match armed.failing {
        Failing::Full => ffi::SQLITE_FULL,
        Failing::Once | Failing::Always | Failing::Dead => ffi::SQLITE_IOERR,
    })
}

fn note(path: Option<&PathBuf>, operation: Unsynced) {
    let mut disk = disk();
    if let Some(file) = path.and_then(|path| disk.files.get_mut(path)) {
        file.unsynced.push(operation);
    }
}

fn synced(path: &Path) {
    if let Some(file) = disk().files.get_mut(path) {
        for operation in std::mem::take(&mut file.unsynced) {
            operation.apply(&mut file.synced, usize::MAX);
        }
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// An I/O error, as the system numbers it.
const EIO: c_int = 5;

/// The system's fdatasync, for the whole process: Rowcast syncs the `-wal` by it, and the simulation must know when.
///
/// # Safety
/// As the system's own: any number may be given.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    if gate(true).is_err() {
        // SAFETY: the C library's own place for the number of the error, of this thread.
        unsafe { *__errno_location() = EIO };
        return -1;
    }
    if let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{descriptor}")) {
        synced(&path);
    }
    0
}

/// The functions that SQLite calls.
mod vfs {
    use super::*;

    /// SQLite's file, followed in memory by the file of the VFS below.
    #[repr(C)]
    struct File {
        base: ffi::sqlite3_file,
        path: *mut PathBuf,
    }

    const BELOW: usize = size_of::<File>().next_multiple_of(16);

    static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
        iVersion: 2,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        xLock: Some(lock),
        xUnlock: Some(unlock),
        xCheckReservedLock: Some(check_reserved_lock),
        xFileControl: Some(file_control),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(device_characteristics),
        xShmMap: Some(shm_map),
        xShmLock: Some(shm_lock),
        xShmBarrier: Some(shm_barrier),
        xShmUnmap: Some(shm_unmap),
        xFetch: None,
        xUnfetch: None,
    };

    pub(super) fn register() {
        // SAFETY: the VFS that is found lives as long as the process, and so does the one that is leaked here.
        unsafe {
            let below = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!below.is_null(), "SQLite has a VFS of its own");
            let vfs = Box::leak(Box::new(*below));
            vfs.szOsFile += c_int::try_from(BELOW).expect("a small number");
            vfs.zName = c"rowcast-sim".as_ptr();
            vfs.pAppData = below.cast();
            vfs.pNext = std::ptr::null_mut();
            vfs.iVersion = 2;
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            vfs.xRandomness = Some(randomness);
            vfs.xCurrentTime = Some(current_time);
            vfs.xCurrentTimeInt64 = Some(current_time_millis);
            assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
        }
    }

    unsafe fn below(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
        // SAFETY: `register` put it there.
        unsafe { (*vfs).pAppData.cast() }
    }

    unsafe fn file_below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
        // SAFETY: `szOsFile` has room for both.
        unsafe { file.cast::<u8>().add(BELOW).cast() }
    }

    unsafe fn path_of<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a PathBuf> {
        // SAFETY: `open` set it, to null or a box of its own.
        unsafe { (*file.cast::<File>()).path.as_ref() }
    }

    unsafe extern "C" fn open(
        vfs: *mut ffi::sqlite3_vfs,
        name: ffi::sqlite3_filename,
        file: *mut ffi::sqlite3_file,
        flags: c_int,
        out: *mut c_int,
    ) -> c_int {
        // SAFETY: SQLite gives a file of `szOsFile` bytes, and a name that outlives it.
        unsafe {
            (*file).pMethods = std::ptr::null();
            if let Err(code) = gate(false) {
                return code;
            }
            let below = below(vfs);
            let opened = (*below).xOpen.expect("a VFS opens files")(below, name, file_below(file), flags, out);
            if opened != ffi::SQLITE_OK {
                return opened;
            }
            let tracked = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0 && !name.is_null();
            let path = tracked.then(|| PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned()));
            if let Some(path) = &path
                && !disk().files.contains_key(path)
            {
                adopt(path);
            }
            let ours = file.cast::<File>();
            (*ours).path = path.map_or(std::ptr::null_mut(), |path| Box::into_raw(Box::new(path)));
            (*file).pMethods = &raw const METHODS;
            opened
        }
    }

    unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
        // SAFETY: `open` made both.
        unsafe {
            let ours = file.cast::<File>();
            if !(*ours).path.is_null() {
                drop(Box::from_raw((*ours).path));
                (*ours).path = std::ptr::null_mut();
            }
            let below = file_below(file);
            (*(*below).pMethods).xClose.expect("a file closes")(below)
        }
    }

    unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, bytes: c_int, at: i64) -> c_int {
        if gate(false).is_err() {
            return ffi::SQLITE_IOERR_READ;
        }
        // SAFETY: handed on as it came.
        unsafe {
            let below = file_below(file);
            (*(*below).pMethods).xRead.expect("a file reads")(below, to, bytes, at)
        }
    }

    unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, at: i64) -> c_int {
        if let Err(code) = gate(true) {
            return if code == ffi::SQLITE_FULL { code } else { ffi::SQLITE_IOERR_WRITE };
        }
        // SAFETY: SQLite gives as many bytes as it says; the rest is handed on as it came.
        unsafe {
            let below = file_below(file);
            let written = (*(*below).pMethods).xWrite.expect("a file writes")(below, from, bytes, at);
            if written == ffi::SQLITE_OK {
                let length = usize::try_from(bytes).expect("a length");
                let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length).to_vec();
                note(path_of(file), Unsynced::Write { offset: usize::try_from(at).expect("an offset"), bytes });
            }
            written
        }
    }

    unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
        if gate(true).is_err() {
            return ffi::SQLITE_IOERR_TRUNCATE;
        }
        // SAFETY: handed on as it came.
        unsafe {
            let below = file_below(file);
            let done = (*(*below).pMethods).xTruncate.expect("a file truncates")(below, size);
            if done == ffi::SQLITE_OK {
                note(path_of(file), Unsynced::Truncate(usize::try_from(size).expect("a size")));
            }
            done
        }
    }

    unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
        if gate(true).is_err() {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        // SAFETY: `open` set the path. Nothing is really synced: the files are in memory.
        if let Some(path) = unsafe { path_of(file) } {
            synced(path);
        }
        ffi::SQLITE_OK
    }

    unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
        if gate(true).is_err() {
            return ffi::SQLITE_IOERR_DELETE;
        }
        // SAFETY: SQLite gives a name; the rest is handed on as it came.
        unsafe {
            disk().files.remove(Path::new(&*CStr::from_ptr(name).to_string_lossy()));
            let below = below(vfs);
            (*below).xDelete.expect("a VFS deletes files")(below, name, sync)
        }
    }

    unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, bytes: c_int, to: *mut c_char) -> c_int {
        let mut chance = Chance::new(disk().chance);
        for at in 0..usize::try_from(bytes).expect("a length") {
            // SAFETY: SQLite gives room for as many bytes as it says.
            unsafe { *to.add(at) = chance.below(256) as u8 as c_char };
        }
        bytes
    }

    /// From the beginning of the Julian period to 1970, in milliseconds.
    const JULIAN_1970: i64 = 210_866_760_000_000;

    unsafe extern "C" fn current_time_millis(_: *mut ffi::sqlite3_vfs, to: *mut i64) -> c_int {
        // SAFETY: SQLite gives room for a number.
        unsafe { *to = disk().wall_millis + JULIAN_1970 };
        ffi::SQLITE_OK
    }

    unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, to: *mut f64) -> c_int {
        // SAFETY: SQLite gives room for a number.
        unsafe { *to = (disk().wall_millis + JULIAN_1970) as f64 / 86_400_000.0 };
        ffi::SQLITE_OK
    }

    /// Functions that are handed on as they come.
    macro_rules! handed_on {
        ($($name:ident = $method:ident ( $($argument:ident : $kind:ty),* ) $(-> $out:ty)?;)*) => {
            $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) $(-> $out)? {
                // SAFETY: handed on as it came, to the file that `open` made below ours.
                unsafe {
                    let below = file_below(file);
                    (*(*below).pMethods).$method.expect("the VFS below has it")(below $(, $argument)*)
                }
            })*
        };
    }

    handed_on! {
        file_size = xFileSize(to: *mut i64) -> c_int;
        lock = xLock(kind: c_int) -> c_int;
        unlock = xUnlock(kind: c_int) -> c_int;
        check_reserved_lock = xCheckReservedLock(to: *mut c_int) -> c_int;
        file_control = xFileControl(code: c_int, argument: *mut c_void) -> c_int;
        sector_size = xSectorSize() -> c_int;
        device_characteristics = xDeviceCharacteristics() -> c_int;
        shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, to: *mut *mut c_void) -> c_int;
        shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
        shm_barrier = xShmBarrier();
        shm_unmap = xShmUnmap(delete: c_int) -> c_int;
    }
}
