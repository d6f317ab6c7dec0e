#include "completion.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace valuescope::command_line {
namespace {

struct Word {
  std::string text;  // a subcommand or a flag with its dashes
  std::string help;
  bool is_command;
};

// A command by the words that lead to it, and the words that may follow.
struct Place {
  std::string path;  // "" or "jobs" or "jobs get"
  std::vector<Word> words;
};

void AddFlags(const CLI::App& command, std::vector<Word>& words) {
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      words.push_back({absl::StrCat("--", name), option->get_description(), false});
    }
  }
}

// Depth first; flags of the whole program may stand behind every command.
void AddPlaces(const CLI::App& app, const CLI::App& command, const std::string& path,
               std::vector<Place>& places) {
  Place place{path, {}};
  const auto subcommands = command.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* subcommand : subcommands) {
    place.words.push_back({subcommand->get_name(), subcommand->get_description(), true});
  }
  AddFlags(command, place.words);
  if (&command != &app) {
    std::vector<Word> global;
    AddFlags(app, global);
    for (const Word& word : global) {
      if (word.text != "--help") place.words.push_back(word);
    }
  }
  places.push_back(std::move(place));
  for (const CLI::App* subcommand : subcommands) {
    AddPlaces(
        app, *subcommand,
        std::string(absl::StripAsciiWhitespace(absl::StrCat(path, " ", subcommand->get_name()))),
        places);
  }
}

std::string WordList(const Place& place) {
  return absl::StrJoin(place.words, " ",
                       [](std::string* out, const Word& word) { absl::StrAppend(out, word.text); });
}

std::string Quoted(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}, {"\n", " "}}),
                      "'");
}

// `case` branches of bash and zsh: which words lead deeper, and what may follow.
std::string Deeper(const std::vector<Place>& places) {
  std::vector<std::string> paths;
  for (const Place& place : places) {
    if (!place.path.empty()) paths.push_back(absl::StrCat("'", place.path, "'"));
  }
  return absl::StrJoin(paths, "|");
}

std::string Following(const std::vector<Place>& places) {
  std::string branches;
  for (const Place& place : places) {
    absl::StrAppendFormat(&branches, "    '%s') following='%s' ;;\n", place.path, WordList(place));
  }
  return branches;
}

constexpr char kBash[] = R"(# bash completion; made by: valuescope completion bash
_valuescope() {
  local current=${COMP_WORDS[COMP_CWORD]} place= candidate following= i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    candidate="${place:+$place }${COMP_WORDS[i]}"
    case $candidate in
    @DEEPER@) place=$candidate ;;
    esac
  done
  case $place in
@FOLLOWING@  esac
  COMPREPLY=($(compgen -W "$following" -- "$current"))
}
complete -o default -F _valuescope valuescope
)";

constexpr char kZsh[] = R"(#compdef valuescope
# zsh completion; made by: valuescope completion zsh
_valuescope() {
  local place= candidate following= i
  for ((i = 2; i < CURRENT; ++i)); do
    candidate="${place:+$place }${words[i]}"
    case $candidate in
    @DEEPER@) place=$candidate ;;
    esac
  done
  case $place in
@FOLLOWING@  esac
  compadd -- ${=following}
  _files
}
if [ "${funcstack[1]}" = _valuescope ]; then _valuescope "$@"; else compdef _valuescope valuescope; fi
)";

constexpr char kFish[] = R"(# fish completion; made by: valuescope completion fish
function __valuescope_at
  set -l place ''
  for word in (commandline -opc)[2..-1]
    set -l candidate (string trim -- "$place $word")
    if contains -- $candidate @DEEPER@
      set place $candidate
    end
  end
  test "$place" = "$argv[1]"
end
)";

std::string Fish(const std::vector<Place>& places) {
  std::string script =
      absl::StrReplaceAll(kFish, {{"@DEEPER@", absl::StrReplaceAll(Deeper(places), {{"|", " "}})}});
  for (const Place& place : places) {
    for (const Word& word : place.words) {
      const std::string text = word.is_command ? absl::StrCat("-f -a ", word.text)
                                               : absl::StrCat("-l ", word.text.substr(2));
      absl::StrAppendFormat(&script,
                            "complete -c valuescope -n \"__valuescope_at '%s'\" %s -d %s\n",
                            place.path, text, Quoted(word.help));
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, Shell shell) {
  std::vector<Place> places;
  AddPlaces(app, app, "", places);
  if (shell == Shell::kFish) return Fish(places);
  return absl::StrReplaceAll(shell == Shell::kBash ? kBash : kZsh,
                             {{"@DEEPER@", Deeper(places)}, {"@FOLLOWING@", Following(places)}});
}

}  // namespace valuescope::command_line
