// Enumerations that the contract shares with the rooms which know no messages. Both list the same
// things in the same order, the contract after its UNSPECIFIED.
#ifndef VALUESCOPE_STUDIES_CONTRACT_ENUMS_H_
#define VALUESCOPE_STUDIES_CONTRACT_ENUMS_H_

#include <optional>

#include "analysis/neuron_geometry.h"
#include "base/dtype.h"
#include "model/site.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::studies {

v1::Site SiteToProto(model::Site site);
// nullopt for UNSPECIFIED and for numbers that the contract does not have.
std::optional<model::Site> SiteOf(v1::Site site);

v1::DataType DataTypeToProto(DType dtype);
// nullopt as above.
std::optional<DType> DataTypeOf(v1::DataType dtype);

v1::NeuronClass ClassToProto(analysis::NeuronClass neuron_class);
// nullopt as above.
std::optional<analysis::NeuronClass> ClassOf(int number);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_CONTRACT_ENUMS_H_
