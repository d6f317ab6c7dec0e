// Blobs as objects of an S3-compatible store: PREFIX/ab/abcdef..., as a directory of blobs has
// them, so that one can be copied into the other. A blob is put together in a scratch file of this
// machine, since its name is known at its end, and then sent: an object is visible as a whole or
// not at all, and the same bytes have the same name.
//
// Several servers may use one prefix, of a store that reads what was written before (as AWS's does,
// and MinIO). Ages are told by the store's clock alone. S3 cannot look at an object's age and
// remove it in one step; so who removes a blob first leaves a mark, PREFIX/removing/DIGEST/UUID,
// then looks at the age, and takes the mark away once the object is gone. Who publishes a blob
// sends it, then looks for marks, waits until there are none, and then looks whether the object is
// there: either the remover's look saw the object young, or the publisher's saw the mark or what
// came of it.
//
// With bytes that are read as a whole goes a check against their name. PREFIX/.owner names the
// database whose blobs they are.
#ifndef VALUESCOPE_STORE_S3_BLOB_STORE_H_
#define VALUESCOPE_STORE_S3_BLOB_STORE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "store/blob_store.h"
#include "store/s3_options.h"

namespace valuescope::store {

// Asks the store for its bucket and makes the scratch folder. FAILED_PRECONDITION (reason
// STORAGE_REFUSED) where the store refuses, UNAVAILABLE where it does not answer. Writers must not
// outlive the store.
absl::StatusOr<std::unique_ptr<BlobStore>> OpenS3BlobStore(S3Options options);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_BLOB_STORE_H_
