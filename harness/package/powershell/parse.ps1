# Parses texts, and executes and loads nothing of them. Standard input has a line for each: letters that say what is
# asked besides, a blank, and the text as UTF-8 in base64. The letters:
#   h  the text has words that make the parser load something: it is not shown them
#   n  tell of syntax that Windows PowerShell 5.1 lacks
# A line of standard output begins with the number of the text, from 0, has its fields between tabs, and is one of
#   N error LINE COLUMN ID MESSAGE
#   N newer LINE COLUMN KIND
#   N end
# A program that is no PowerShell 7 does not write the first line. Each operation costs milliseconds when it is used for
# the first time, and cmdlets of modules much more: only the language and .NET are used, and no more of it than needed.
$out = [Console]::Out
$out.NewLine = "`n"
$out.WriteLine("vmrole-parser`t$($PSVersionTable.PSVersion)")
$index = 0

function Write-Found($kind, $extent, $id, $message) {
    $message = [regex]::Replace($message, '\s+', ' ')
    $out.WriteLine("$index`t$kind`t$($extent.StartLineNumber)`t$($extent.StartColumnNumber)`t$id`t$message")
}

# `using assembly` makes the parser load that file, `using module` read it, and `configuration` import modules. Names of
# the same length in their places leave every place where it is; leading `using` statements become blanks.
function Hide-Words($text) {
    $word = '(?i)(?<![\w$-])(usin|configuratio)[gn](?=[\s`])'
    $text = [regex]::Replace($text, $word, '${1}_')
    $tokens = $errors = $null
    $block = [Management.Automation.Language.Parser]::ParseInput($text, [ref]$tokens, [ref]$errors).EndBlock
    if ($null -eq $block) { return $text }
    $letters = $text.ToCharArray()
    $end = 0
    foreach ($statement in $block.Statements) {
        if (-not $statement.Extent.Text.StartsWith('usin_', 'OrdinalIgnoreCase')) { break }
        $end = $statement.Extent.EndOffset
        while ($end -lt $letters.Length -and ' ;'.Contains($letters[$end])) { $end++ }
        for ($at = $statement.Extent.StartOffset; $at -lt $end; $at++) {
            if ($letters[$at] -ne "`n" -and $letters[$at] -ne "`r") { $letters[$at] = ' ' }
        }
    }
    foreach ($one in $errors) {
        if ($one.Extent.StartOffset -lt $end) { Write-Found 'error' $one.Extent $one.ErrorId $one.Message }
    }
    [string]::new($letters)
}

function Find-Misplaced($tree) {
    $misplaced = $tree.Find({
            param($node)
            $node -is [Management.Automation.Language.CommandAst] -and $node.GetCommandName() -eq 'usin_'
        }, $true)
    if ($misplaced) {
        $message = "A 'using' statement must appear before any other statements in a script."
        Write-Found 'error' $misplaced.Extent 'UsingMustBeAtStartOfScript' $message
    }
}

function Find-Newer($tree, $tokens) {
    $told = @{}
    foreach ($token in $tokens) {
        $name = switch ($token.Kind) {
            'AndAnd' { 'chain' }
            'OrOr' { 'chain' }
            'QuestionQuestion' { 'null-coalescing' }
            'QuestionQuestionEquals' { 'null-coalescing' }
            'QuestionDot' { 'null-conditional' }
            'QuestionLBracket' { 'null-conditional' }
            'QuestionMark' { 'ternary' }
            'Clean' { 'clean' }
            'Number' { if ($token.Text -match '^0b|^(?:0x.*|[^x]*)(?:u[lsy]?|[syn])(?:[kmgtp]b)?$') { 'number' } }
            { $_ -in 'StringExpandable', 'HereStringExpandable' } {
                if ($token.Text -cmatch '(?<!`)(?:``)*`(?:u\{|e)') { 'escape' }
            }
        }
        if ($name -and -not $told[$name]) {
            $told[$name] = $true
            Write-Found 'newer' $token.Extent $name ''
        }
    }
    $background = $tree.Find({
            param($node) $node -is [Management.Automation.Language.PipelineAst] -and $node.Background
        }, $true)
    if ($background) { Write-Found 'newer' $background.Extent 'background' '' }
}

while ($line = [Console]::In.ReadLine()) {
    $asked, $coded = $line.Split(' ')
    $text = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($coded))
    $tokens = $errors = $null
    try {
        if ($asked.Contains('h')) { $text = Hide-Words $text }
        $tree = [Management.Automation.Language.Parser]::ParseInput($text, [ref]$tokens, [ref]$errors)
        foreach ($one in $errors) { Write-Found 'error' $one.Extent $one.ErrorId $one.Message }
        if ($asked.Contains('h')) { Find-Misplaced $tree }
        if ($asked.Contains('n')) { Find-Newer $tree $tokens }
    }
    catch { $out.WriteLine("$index`terror`t1`t1`tUnrecoverable`tThe parser gives up on it.") }
    $out.WriteLine("$index`tend")
    $index++
}
