//! Files as the log needs them: past the kernel's cache, in whole sectors, from aligned memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::storage::log::SECTOR_BYTES;

/// New room is filled in pieces of this size.
pub(super) const FILL_BYTES: usize = 256 << 10;

/// What `statfs` says of file systems that are memory.
const RAMFS: i64 = 0x8584_58f6;
const TMPFS: i64 = 0x0102_1994;

/// Bytes at a multiple of a sector, a multiple of a sector of them.
pub(super) struct Buffer {
    at: NonNull<u8>,
    bytes: usize,
}

impl Buffer {
    /// All zeros.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(SECTOR_BYTES).max(SECTOR_BYTES);
        // SAFETY: the size is not zero.
        let at = unsafe { alloc_zeroed(Self::layout(bytes)) };
        let at = NonNull::new(at).unwrap_or_else(|| handle_alloc_error(Self::layout(bytes)));
        Self { at, bytes }
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, SECTOR_BYTES).expect("a buffer is no larger than a segment")
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes were allocated, and they were zero from the beginning.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.bytes) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has them while this is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.at.as_ptr(), Self::layout(self.bytes)) };
    }
}

/// A file that is read and written past the kernel's cache.
pub(super) struct DirectFile {
    file: File,
}

impl DirectFile {
    /// Open it, or make it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT).mode(0o600);
        Ok(Self { file: options.open(path)? })
    }

    /// Open it to be read, if it is there.
    pub(super) fn look_at(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)? })
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// By what the file is known again: a copy of it has another number.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(std::os::unix::fs::MetadataExt::ino(&self.file.metadata()?))
    }

    /// Fill the buffer from this offset on, as far as the file goes; how far that was.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // The end of a file need not be a sector's end, and what follows it can't be read directly.
            if !filled.is_multiple_of(SECTOR_BYTES) {
                break;
            }
        }
        Ok(filled)
    }

    /// Write all of it, and return when the device has it.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Make all that was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Let it have room for so many bytes from its beginning, and fill all beyond its end with zeros. What was never written
    /// can still lack room when it is: a file system splits what it has only set aside, and may need a block for that.
    pub(super) fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut at = self.len()?.next_multiple_of(SECTOR_BYTES as u64);
        if at >= bytes {
            return Ok(());
        }
        let room = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, and no pointer is passed.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, room) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let zeros = Buffer::new(FILL_BYTES);
        while at < bytes {
            let length = (bytes - at).min(FILL_BYTES as u64) as usize;
            self.write(&zeros[..length], at)?;
            at += length as u64;
        }
        Ok(())
    }

    /// The same as operations of a ring. Whoever submits them keeps this file, and what it writes from, until they end.
    pub(super) fn write_entry(&self, bytes: &[u8], offset: u64) -> squeue::Entry {
        opcode::Write::new(self.fd(), bytes.as_ptr(), bytes.len() as u32).offset(offset).build()
    }

    /// The same of a read: what it fills stays where it is, and nobody looks at it, until it ends.
    pub(super) fn read_entry(&self, into: &mut [u8], offset: u64) -> squeue::Entry {
        opcode::Read::new(self.fd(), into.as_mut_ptr(), into.len() as u32).offset(offset).build()
    }

    pub(super) fn sync_entry(&self) -> squeue::Entry {
        opcode::Fsync::new(self.fd()).flags(FsyncFlags::DATASYNC).build()
    }

    /// Only sets the room aside: it still has to be filled.
    pub(super) fn allocate_entry(&self, bytes: u64) -> squeue::Entry {
        opcode::Fallocate::new(self.fd(), bytes).mode(libc::FALLOC_FL_KEEP_SIZE).build()
    }

    fn fd(&self) -> Fd {
        Fd(self.file.as_raw_fd() as RawFd)
    }
}

/// The name of the file system of memory that a directory lies on, if it does.
pub(super) fn memory_file_system(directory: &Path) -> io::Result<Option<&'static str>> {
    let statfs = statfs(directory)?;
    Ok(match statfs.f_type as i64 {
        RAMFS => Some("ramfs"),
        TMPFS => Some("tmpfs"),
        _ => None,
    })
}

/// The number of a directory's file system, which outlives a restart of the machine.
pub(super) fn file_system_id(directory: &Path) -> io::Result<u64> {
    let id = statfs(directory)?.f_fsid;
    // SAFETY: it is two integers of 32 bits, whatever their names.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, u64>(id) })
}

fn statfs(path: &Path) -> io::Result<libc::statfs> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: all zero is valid for integers.
    let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and `statfs` is writable.
    match unsafe { libc::statfs(path.as_ptr(), &raw mut statfs) } {
        0 => Ok(statfs),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_begin_as_zeros() {
        let mut buffer = Buffer::new(SECTOR_BYTES + 1);
        assert!(buffer.as_ptr().addr().is_multiple_of(SECTOR_BYTES) && buffer.len() == 2 * SECTOR_BYTES);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(7);
    }

    #[test]
    fn a_file_is_read_as_far_as_it_goes() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let file = DirectFile::open(&directory.path().join("f")).unwrap();
        let mut buffer = Buffer::new(3 * SECTOR_BYTES);
        assert_eq!(file.read(&mut buffer, 0).unwrap(), 0);
        file.write(&buffer[..SECTOR_BYTES], 0).unwrap();
        assert_eq!(file.read(&mut buffer, 0).unwrap(), SECTOR_BYTES);
        file.allocate(2 * SECTOR_BYTES as u64).unwrap();
        assert_eq!(file.read(&mut buffer, 0).unwrap(), 2 * SECTOR_BYTES);
    }
}
