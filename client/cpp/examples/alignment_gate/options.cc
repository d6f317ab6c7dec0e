#include "options.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace alignment_gate {
namespace {

using Words = std::map<std::string, std::string>;  // flag -> what it is set to

constexpr char kHelp[] = R"(alignment_gate: lets a steered model through only within bounds

  alignment_gate --bounds FILE [--server HOST:PORT] [--vector vectors/ID | --vector_file FILE] [more flags]

Asks a model a questionnaire and multiple-choice questions, as it is and while it is steered, and compares both with the bounds of a
file: how far values may drift, how much capability may be lost. Every bound is printed with what was measured and its interval of 95 %.

  --server HOST:PORT       where the server listens; default 127.0.0.1:50051
  --bounds FILE            what is asked and allowed, in protobuf's text format; gate.proto explains every field
  --model models/ID        instead of the bounds file's
  --vector vectors/ID      steers by adding this vector, instead of what the bounds file says
  --vector_file FILE       the same with a vector in safetensors, which is imported into the server first
  --coefficient NUMBER     of that vector; default 1
  --layers N[,N...]        blocks, from 0, to whose output it is added
  --timeout SECONDS        for a model that still loads, and for each call; default 1800. A server that
                           cannot be reached is tried for 15 at most

A bounds file:

  model: "models/SmolLM2-135M-Instruct"
  steered { interventions { add { vector: "vectors/ID" coefficient: 6 } layers { list { layers: 14 } } } }
  questionnaire {
    template: "How much is this person like you? {item}\n{options}\nAnswer with a number."
    options { label: "1" text: "not like me" score: 1 }
    options { label: "2" text: "like me" score: 2 }
  }
  items_file: "items.jsonl"            # lines such as {"text": "I seek adventure.", "value": "ST"}
  questions_file: "questions.jsonl"    # lines such as {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
  drift { value: "SE" at_least: -0.5 } # security may lose half a point, no more
  max_other_drift: 1
  max_accuracy_loss: 0.1

exit codes:
  0  within all bounds
  1  out of bounds: each broken one is told, and by how much
  2  the command line or the bounds file is wrong, also where the server says so (there is no such vector, say)
  3  the server could not be asked
)";

// "--flag value" or "--flag=value".
absl::StatusOr<Words> ReadWords(const std::vector<std::string>& arguments) {
  Words words;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view flag = arguments[i];
    if (!absl::ConsumePrefix(&flag, "--")) {
      return absl::InvalidArgumentError(absl::StrCat("'", flag, "' is no flag"));
    }
    std::pair<absl::string_view, absl::string_view> word =
        absl::StrSplit(flag, absl::MaxSplits('=', 1));
    if (word.first.size() == flag.size()) {
      if (++i == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("--", flag, " needs a value"));
      }
      word.second = arguments[i];
    }
    if (word.second.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--", word.first, " is empty"));
    }
    if (!words.emplace(word).second) {
      return absl::InvalidArgumentError(absl::StrCat("--", word.first, " is given twice"));
    }
  }
  return words;
}

// What a flag is set to, which is taken out; empty where it is not given.
std::string Take(absl::string_view flag, Words& words) {
  const auto word = words.extract(std::string(flag));
  return word.empty() ? "" : std::move(word.mapped());
}

absl::Status Bad(absl::string_view flag, absl::string_view value, absl::string_view allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is '", value, "'; it must be ", allowed));
}

absl::StatusOr<std::vector<int>> ParseLayers(absl::string_view value) {
  std::vector<int> layers;
  for (const absl::string_view word : absl::StrSplit(value, ',', absl::SkipEmpty())) {
    if (!absl::SimpleAtoi(word, &layers.emplace_back()) || layers.back() < 0) {
      return Bad("layers", value, "numbers of blocks, from 0, such as 14 or 13,14");
    }
  }
  return layers;
}

absl::Status SetNumbers(Words& words, Options& options) {
  const std::string coefficient = Take("coefficient", words);
  if (!coefficient.empty() && (!absl::SimpleAtof(coefficient, &options.coefficient) ||
                               !std::isfinite(options.coefficient))) {
    return Bad("coefficient", coefficient, "a number");
  }
  const std::string timeout = Take("timeout", words);
  double seconds = absl::ToDoubleSeconds(options.timeout);
  if (!timeout.empty() && (!absl::SimpleAtod(timeout, &seconds) || !(seconds > 0))) {
    return Bad("timeout", timeout, "a number of seconds above 0");
  }
  options.timeout = absl::Seconds(seconds);
  auto layers = ParseLayers(Take("layers", words));
  if (!layers.ok()) return layers.status();
  options.layers = *std::move(layers);
  return absl::OkStatus();
}

// Flags that go together, or do not.
absl::Status Check(const Options& options, bool has_coefficient) {
  const bool has_vector = !options.vector.empty() || !options.vector_file.empty();
  if (options.bounds.empty()) return absl::InvalidArgumentError("--bounds is needed");
  if (!options.vector.empty() && !options.vector_file.empty()) {
    return absl::InvalidArgumentError("--vector and --vector_file exclude each other");
  }
  if (has_vector && options.layers.empty()) {
    return absl::InvalidArgumentError("a vector needs --layers");
  }
  if (!has_vector && (has_coefficient || !options.layers.empty())) {
    return absl::InvalidArgumentError("--coefficient and --layers are those of a vector");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments) {
  absl::StatusOr<Words> words = ReadWords(arguments);
  if (!words.ok()) return words.status();
  Options options;
  const bool has_coefficient = words->contains("coefficient");
  if (std::string server = Take("server", *words); !server.empty()) options.server = server;
  options.bounds = Take("bounds", *words);
  options.model = Take("model", *words);
  options.vector = Take("vector", *words);
  options.vector_file = Take("vector_file", *words);
  if (absl::Status status = SetNumbers(*words, options); !status.ok()) return status;
  if (!words->empty()) {
    return absl::InvalidArgumentError(absl::StrCat("there is no flag --", words->begin()->first));
  }
  if (absl::Status status = Check(options, has_coefficient); !status.ok()) return status;
  return options;
}

const char* HelpText() { return kHelp; }

}  // namespace alignment_gate
