#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "pages.h"

namespace valuescope::command_line {
namespace {

std::string StateOf(v1::ModelState state) {
  return LowerWithoutPrefix(v1::ModelState_Name(state), "MODEL_STATE_");
}

}  // namespace

int ListModels(const Globals& globals, bool all_replicas) {
  Client client = globals.Connect();
  v1::ListModelsRequest request;
  request.set_all_replicas(all_replicas);
  const auto models = AllPages<v1::Model>(
      request, [&](const auto& request) { return client.ListModels(request); },
      [](const auto& page) { return page.models(); });
  if (!models.ok()) return Fail(models.status());
  if (globals.json) return PrintJsonLines(*models);
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "STATE", "FAMILY", "LAYERS", "HIDDEN", "NEURONS", "DTYPE", "DEVICE", "ON"}};
  for (const v1::Model& model : *models) {
    const std::string on = absl::StrJoin(
        model.replicas(), ",",
        [](std::string* out, const v1::ModelReplica& has) { out->append(has.replica()); });
    // Beneath no root of this server.
    if (model.state() == v1::MODEL_STATE_UNSPECIFIED) {
      rows.push_back({model.name(), "elsewhere", "", "", "", "", "", "", on});
      continue;
    }
    rows.push_back(
        {model.name(), StateOf(model.state()), model.family(), absl::StrCat(model.num_layers()),
         absl::StrCat(model.hidden_size()), absl::StrCat(model.intermediate_size()),
         LowerWithoutPrefix(v1::DataType_Name(model.dtype()), "DATA_TYPE_"), model.device(), on});
  }
  PrintTable(rows);
  return kOk;
}

int ListReplicas(const Globals& globals) {
  Client client = globals.Connect();
  const auto response = client.ListReplicas({});
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    return PrintJsonLines(
        std::vector<v1::Replica>(response->replicas().begin(), response->replicas().end()));
  }
  std::vector<std::vector<std::string>> rows = {
      {"SERVER", "VERSION", "HEARD", "MODEL", "STATE", "DTYPE", "HARDWARE", "TOKENS/S"}};
  for (const v1::Replica& replica : response->replicas()) {
    const absl::Duration ago =
        absl::Now() - absl::FromUnixSeconds(replica.heartbeat_time().seconds());
    std::vector<std::string> server = {
        replica.name(), replica.version(),
        absl::StrCat(absl::ToInt64Seconds(std::max(ago, absl::ZeroDuration())), " s ago")};
    if (replica.models().empty())
      rows.push_back({server[0], server[1], server[2], "", "", "", "", ""});
    for (const v1::ModelReplica& model : replica.models()) {
      rows.push_back({server[0], server[1], server[2], model.model(), StateOf(model.state()),
                      LowerWithoutPrefix(v1::DataType_Name(model.dtype()), "DATA_TYPE_"),
                      model.hardware_class(),
                      model.has_tokens_per_second()
                          ? absl::StrFormat("%.0f", model.tokens_per_second())
                          : ""});
    }
  }
  PrintTable(rows);
  return kOk;
}

int GetModel(const Globals& globals, const std::string& name) {
  Client client = globals.Connect();
  v1::GetModelRequest request;
  request.set_name(ResourceName("models", name));
  const auto response = client.GetModel(request);
  if (!response.ok()) return Fail(response.status());
  const v1::Model& model = response->model();
  if (globals.json) {
    PrintJson(model);
    return kOk;
  }
  PrintTable({{"name", model.name()},
              {"state", StateOf(model.state())},
              {"family", model.family()},
              {"layers", absl::StrCat(model.num_layers())},
              {"hidden", absl::StrCat(model.hidden_size())},
              {"neurons a layer", absl::StrCat(model.intermediate_size())},
              {"heads", absl::StrCat(model.num_attention_heads(), " (", model.num_key_value_heads(),
                                     " key/value)")},
              {"vocabulary", absl::StrCat(model.vocab_size())},
              {"context", absl::StrCat(model.context_length())},
              {"weights", ShortDigest(model.weights_digest())},
              {"tokenizer", ShortDigest(model.tokenizer_digest())}});
  return kOk;
}

}  // namespace valuescope::command_line
