"""Everything that a registry can refuse or find broken, as one tree.

    RegistryError
    ├── UsageError                the request itself can't be understood            exit 2
    │   ├── InvalidNameError      a name, alias, role, tag or reference
    │   ├── InvalidPolicyError    gates.toml
    │   └── ReasonNeededError     something was forced without saying why
    ├── NotFoundError                                                               exit 6
    │   ├── ModelNotFoundError
    │   ├── VersionNotFoundError
    │   ├── AliasNotFoundError
    │   ├── RoleNotFoundError
    │   └── SourceNotFoundError   a file to publish or to import
    ├── ConflictError             somebody or something stands in the way           exit 7
    │   ├── AliasMovedError       compare-and-set lost
    │   ├── ProtectedVersionError delete refused
    │   ├── NothingToRollBackError
    │   └── TargetExistsError     export would overwrite
    ├── GateRefusedError          promotion refused, with figures                   exit 8
    ├── IntegrityError            damaged, incomplete or malicious                  exit 9
    │   ├── MissingBlobError
    │   ├── DamagedBlobError      bytes differ from their digest
    │   ├── InvalidBlobError      not a safetensors file that we would load
    │   ├── DamagedManifestError
    │   ├── DamagedDatabaseError
    │   └── UnsafeArchiveError    links, ``..``, strangers in an archive
    └── StorageError              the disk or the file format                       exit 10
        ├── NotWritableError
        ├── DiskFullError
        ├── BusyError             other processes held the database for too long
        └── NewerSchemaError      written by a later release

Every text says what was found, what was expected and what to do; the facts are attributes. Exit codes are those of
``tl registry``. Nothing here, nor in the three modules that hold the classes, imports anything but the standard library.
"""

from automl_tl_registry.error_roots import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    StorageError,
    UsageError,
    nearest,
)
from automl_tl_registry.faults import (
    BusyError,
    DamagedBlobError,
    DamagedDatabaseError,
    DamagedManifestError,
    DiskFullError,
    InvalidBlobError,
    MissingBlobError,
    NewerSchemaError,
    NotWritableError,
    UnsafeArchiveError,
)
from automl_tl_registry.refusals import (
    AliasMovedError,
    AliasNotFoundError,
    GateRefusedError,
    InvalidNameError,
    InvalidPolicyError,
    ModelNotFoundError,
    NothingToRollBackError,
    ProtectedVersionError,
    ReasonNeededError,
    RoleNotFoundError,
    SourceNotFoundError,
    TargetExistsError,
    VersionNotFoundError,
)

__all__ = [
    "AliasMovedError",
    "AliasNotFoundError",
    "BusyError",
    "ConflictError",
    "DamagedBlobError",
    "DamagedDatabaseError",
    "DamagedManifestError",
    "DiskFullError",
    "GateRefusedError",
    "IntegrityError",
    "InvalidBlobError",
    "InvalidNameError",
    "InvalidPolicyError",
    "MissingBlobError",
    "ModelNotFoundError",
    "NewerSchemaError",
    "NotFoundError",
    "NotWritableError",
    "NothingToRollBackError",
    "ProtectedVersionError",
    "ReasonNeededError",
    "RegistryError",
    "RoleNotFoundError",
    "SourceNotFoundError",
    "StorageError",
    "TargetExistsError",
    "UnsafeArchiveError",
    "UsageError",
    "VersionNotFoundError",
    "nearest",
]
